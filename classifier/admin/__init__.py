"""The audit desk: lists of what there is, one module a subject. Facts can't be edited or deleted here, by anyone."""

from classifier.admin import batches, cases, images, laboratories, machine, predictions, reports, trust, webhooks

__all__ = ["batches", "cases", "images", "laboratories", "machine", "predictions", "reports", "trust", "webhooks"]
