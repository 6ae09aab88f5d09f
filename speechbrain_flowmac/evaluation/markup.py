"""HTML that is escaped by the way it is made.

Text becomes HTML in one place, `element`, which escapes whatever is not
`Markup` yet. Names of files and messages of programs therefore do no harm in
a page, whatever is in them.
"""

import html

# Elements that have no content and no end tag
VOID = {"img", "br", "meta"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def join(*children):
    """HTML of several children, one after the other.

    Arguments
    ---------
    *children
        `Markup` is taken as it is, None and False are left out, iterables
        are joined, and everything else is text to escape.

    Returns
    -------
    Markup

    Example
    -------
    >>> join("a < b", None, [Markup("<br>"), 3])
    'a &lt; b<br>3'
    """
    parts = []
    for child in children:
        if child is None or child is False:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str) or not hasattr(child, "__iter__"):
            parts.append(html.escape(str(child)))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def element(name, *children, **attributes):
    """One element.

    Arguments
    ---------
    name : str
        Of the element.
    *children
        As for `join`.
    **attributes
        "_" stands for "-", and one at the end is dropped (`class_`). None
        and False leave the attribute out, True gives it without a value.

    Returns
    -------
    Markup

    Example
    -------
    >>> element("td", "<b>", class_="num", data_value=1.5, hidden=False)
    '<td class="num" data-value="1.5">&lt;b&gt;</td>'
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    if name in VOID:
        return Markup(start)
    return Markup(f"{start}{join(*children)}</{name}>")
