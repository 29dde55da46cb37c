"""How files are read: arrays, tables, sound, folders of them, data sets through `datasets`."""
