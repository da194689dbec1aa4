"""Small published networks to compare with, one file each, with the tensor names of their published weights.

They are evaluated beside irtool's own models (`irtool eval`, benchmarks/peers.md) and ship without weights: most of
their repositories state no licence, or a non-commercial one.
"""
