"""TaskRes with its settings searched: the estimator, the candidates of a fold, the results."""
