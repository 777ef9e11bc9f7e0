"""Sandboxes that really run commands, one module a provider with its helpers beside it. The port and the mock are in steps.sandbox."""
