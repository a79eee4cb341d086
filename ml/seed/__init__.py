"""The recipe of the demonstration that HematoVision began as, kept runnable: what the product is measured against."""
