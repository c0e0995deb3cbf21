"""The compiled functions of a training: the step, its gradients, its optimizers and its evaluation."""
