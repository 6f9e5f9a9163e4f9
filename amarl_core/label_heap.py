"""The open labels of a search as a binary heap by key."""

from numba import njit

from amarl_core.native import INNER


@njit(**INNER)
def heap_push(search, n, key, label):
    """Add a label to a heap of n."""
    i = n
    while i > 0:
        parent = (i - 1) // 2
        # of equal keys the newest label first: deepest, so ties do not fan out
        if search.heap_key[parent] < key or (search.heap_key[parent] == key and search.heap_label[parent] > label):
            break
        search.heap_key[i], search.heap_label[i] = search.heap_key[parent], search.heap_label[parent]
        i = parent
    search.heap_key[i], search.heap_label[i] = key, label


@njit(**INNER)
def heap_pop(search, n):
    """Remove the label with the least key from a heap of n; return it."""
    top = search.heap_label[0]
    key, label = search.heap_key[n - 1], search.heap_label[n - 1]
    n -= 1
    i = 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and (
            search.heap_key[child + 1] < search.heap_key[child]
            or (
                search.heap_key[child + 1] == search.heap_key[child]
                and search.heap_label[child + 1] > search.heap_label[child]
            )
        ):
            child += 1
        if key < search.heap_key[child] or (key == search.heap_key[child] and label > search.heap_label[child]):
            break
        search.heap_key[i], search.heap_label[i] = search.heap_key[child], search.heap_label[child]
        i = child
    search.heap_key[i], search.heap_label[i] = key, label
    return top
