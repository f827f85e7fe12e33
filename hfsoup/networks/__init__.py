"""Whatever runs, fits or trains networks: alignment, importance, distillation, learned coefficients."""
