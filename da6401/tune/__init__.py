"""What a sweep with sweep.strategy=race trains next in the time left: numbers in, a decision out; nothing runs here."""
