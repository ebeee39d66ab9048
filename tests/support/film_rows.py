"""Rows of two classes, none of which occurs twice."""

GOOD = [{"text": f"film number {index} is good", "label": "good"} for index in range(40)]
BAD = [{"text": f"play number {index} is bad", "label": "bad"} for index in range(40)]
ROWS = [row for pair in zip(GOOD, BAD, strict=True) for row in pair]
OTHERS = [
    {"text": f"a song called {index}", "label": ["good", "bad"][index % 2]} for index in range(8)
]
