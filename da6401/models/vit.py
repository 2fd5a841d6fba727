"""The parts of ViT before and after its blocks, as modules that a stage can be."""

# B batch, C channels, H height, W width, T tokens, E width of a token

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PatchTokens(nn.Module):
    """ViT before its blocks: images (B, 3, H, W) -> class token and patches, each with its position (B, T, E)."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.conv_proj = vit.conv_proj
        self.class_token = vit.class_token
        self.pos_embedding = vit.encoder.pos_embedding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        patches_BTE = self.conv_proj(x_BCHW).flatten(2).transpose(1, 2)
        # Not len(): a trace would fix the batch at its example's.
        tokens_BTE = torch.cat([self.class_token.expand(patches_BTE.shape[0], -1, -1), patches_BTE], dim=1)
        placed_BTE: Tensor = tokens_BTE + self.pos_embedding
        return placed_BTE


class ClassToken(nn.Module):
    """ViT after its blocks: the normalised class token, (B, T, E) -> (B, E)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens_BTE: Tensor) -> Tensor:
        token_BE: Tensor = self.norm(tokens_BTE[:, 0])
        return token_BE
