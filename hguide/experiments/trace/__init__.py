"""What guidance does at each step of a run, seen through `on_step`: numbers, heat maps and figures."""
