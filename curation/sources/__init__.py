"""Sources: what a collection holds, as rows of references to encoded photos."""
