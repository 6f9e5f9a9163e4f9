"""What other people's files look like: networks for `imported` and `makers`, traffic for `traces`.

Nobody needs these modules by name: `load_network`, `make_scenario` and `load_trace` are the ways in.
"""
