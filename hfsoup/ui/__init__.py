"""A page in the browser to bake, inspect, try and push; needs the extra `hfsoup[ui]`."""
