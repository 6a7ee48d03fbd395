from convert import WORDS, fitted, rows, table


def samples():
    return table(6, 2)


def reference(samples):
    columns = dict(samples)
    for name in WORDS:
        columns[name] = columns[name].astype(bytes).astype(str)
    return {"variable": fitted().predict(rows(columns)).reshape(-1, 1).astype("f4")}
