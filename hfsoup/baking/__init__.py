"""The verbs: bake, plan, verify, push, the Trainer callback."""
