"""What one checkpoint is: config, model class, tensors, image processor, adapter."""
