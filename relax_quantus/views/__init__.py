"""Explanation -> what one looks at, hears and opens: pictures, sounds, boxes, pages.

`maps`, `explanation`, `waveform` and `overview` draw; `sounds` filters; `boxes` and `thresholds`
find regions; `page` makes the HTML page of a recording.
"""
