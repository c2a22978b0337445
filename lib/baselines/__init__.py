"""What the papers compare their methods with, one file each."""
