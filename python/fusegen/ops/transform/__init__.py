"""The recurrent ops inside torch.func: vmap and grad by rule, gradients that stay apart for each sample."""
