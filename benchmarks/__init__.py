"""Side by side with the tools people would pick instead, in one run, on the same model and data. `make bench` runs all.

cases         what is measured, against whom, at which size
inputs        the random model and the data of a case, written once and read by both sides
environments  each peer in an environment of its own, with the torch that prefloop has
ours, peers   a side: does one step each time it is its turn
worker        the process a side lives in
duel          two workers that take turns, and what comes of it
work          what the idea alone would give: tokens or bytes of both sides, counted
table         the table of docs/performance.md, from results/*.json
collect_load  the collection service with people at work, and under kill -9; people are its annotators
collect_peers  the collection service beside Label Studio and doccano; collect_peers_setup runs in their environments
gpu, scaling  real shapes where CUDA is; how cost grows with K and the lengths
"""
