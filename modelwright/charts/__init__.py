"""Charts as inline SVG that know no result type: load tests draw with them, and so can whatever else measures.

`svg` draws, `axes` scales, `figure` is a chart with its title and legend; `lines`, `bars` and `intervals` are kinds of
charts. Colours and sizes are the classes of `chart.css`.
"""
