"""A modelled device on which placement policies replay traces of requests, without a clock."""
