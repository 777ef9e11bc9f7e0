"""The product: an intent written as data becomes a durable run.

A recipe and a form make an intent (`template`), whose hash names its run (`identity`); ingress checks the
rules of the queues (`policy`) and starts it; the run's four steps, its gates, patches, budgets and outside
tools have a file each. Built on the public names of `engine`, and used by `api` and `bin`.
"""
