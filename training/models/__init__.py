"""Plain PyTorch modules, shapes in their docstrings. None knows a loop, a device or a rank."""
