"""Whatever fits or trains a network: alignment, importance, distillation, learned coefficients."""
