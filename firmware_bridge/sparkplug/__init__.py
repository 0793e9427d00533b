"""Sparkplug B 3.0, pure: the wire, a subscriber of edge nodes (host), and an edge node (node)."""
