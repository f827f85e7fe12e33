"""Every option of a bake and its checks, declared once; the YAML file."""
