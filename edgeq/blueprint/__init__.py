"""The blueprint: what must hold, parsed once into a frozen value."""
