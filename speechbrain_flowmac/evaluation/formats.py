"""Text for where it goes: a cell of a spreadsheet, a line of Markdown.

Names of files, labels and messages are anybody's, and a spreadsheet computes
what begins like a formula, a viewer of Markdown shows HTML, and a terminal
obeys control characters.
"""

import csv
import io
import math
import re

from speechbrain_flowmac import console

# What begins a formula (OWASP, "CSV injection"), in a cell or in what becomes
# one where cells end at semicolons or tabs
FORMULA = re.compile(r"(^|[,;\t\r\n])(?=[=+\-@\t\r\n＝＋－＠])")
MARKUP = re.compile(r"^[-+]|[\\`*_~\[\]|$#]")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def csv_text(rows):
    """Rows of CSV as RFC 4180 has them. Numbers are written in full, None and NaN
    as nothing; text that a spreadsheet would take for a formula gets an
    apostrophe before it.

    Example
    -------
    >>> csv_text([["=1+1", -2.5, None]])
    "'=1+1,-2.5,\\r\\n"
    """
    text = io.StringIO()
    csv.writer(text).writerows(map(csv_cell, row) for row in rows)
    # names of files may hold bytes that are no text
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def csv_cell(value):
    """What stands for a value in a cell, see `csv_text`."""
    if isinstance(value, str):
        return FORMULA.sub(r"\1'", value)
    return None if isinstance(value, float) and math.isnan(value) else value


def markdown_text(value):
    """Any value as Markdown that shows its text as it is, in one line.

    Example
    -------
    >>> print(markdown_text("<b>a|b</b>\\n"))
    &lt;b&gt;a\\|b&lt;/b&gt;
    """
    line = MARKUP.sub(r"\\\g<0>", printable(value))
    return re.sub("[&<>]", lambda found: ENTITIES[found[0]], line)


def printable(value):
    """One line without control characters.

    Example
    -------
    >>> print(printable("two\\nwords and \\x1b[31m"))
    two words and \\x1b[31m
    """
    return console.printable(" ".join(str(value).split()))


def markdown_code(text):
    """A line of code; the fence is longer than what is in it.

    Example
    -------
    >>> print(markdown_code("ls"), markdown_code("a `b`"))
    `ls` `` a `b` ``
    """
    line = printable(text)
    ticks = max(map(len, re.findall("`+", line)), default=0)
    fence, space = "`" * (ticks + 1), " " * bool(ticks)
    return f"{fence}{space}{line}{space}{fence}"


def markdown_table(headings, rows):
    """A table of cells that are Markdown already; all columns but the first have
    numbers.

    Example
    -------
    >>> print(markdown_table(["name", "size"], [["a", "1"]]))
    | name | size |
    |---|---:|
    | a | 1 |
    """
    ruler = "|" + "|".join(["---", *["---:"] * (len(headings) - 1)]) + "|"
    lines = ["| " + " | ".join(line) + " |" for line in [headings, *rows]]
    return "\n".join([lines[0], ruler, *lines[1:]])
