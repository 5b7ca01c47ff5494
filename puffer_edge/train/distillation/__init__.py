"""Distillation: a large teacher's behaviour in the best student that fits a budget, learnt where the student itself goes."""
