"""Recording sets on disk: atomic publication, checksums, and the format's version.

A store is a folder, a set is a folder in it, and a recording is one zarr v3 group in its set's folder, beside a
``manifest.json`` that names every file with its size and SHA-256. The set's ``set.json`` names the recordings: what it
does not name does not exist. It is replaced atomically, last, and that is the commit. ::

    STORE/
      SET/
        set.json
        RECORDING/
          manifest.json
          zarr.json, activity/…, trial/…, …
      .neuromas/            locks, recordings being built, and pending/SET.json

While a call changes a set, its journal ``.neuromas/pending/SET.json`` names the recordings that the call publishes or
removes. A recording that the journal names and ``set.json`` does not was left behind by a call that was killed. The next call
that changes the set deletes it. Nothing else is deleted: a recording in a set without a ``set.json``, and in no
journal, belongs to a set that lost its ``set.json``, and is reported as damage.

Chunks of activity and coordinates end in a CRC-32C, which zarr checks whenever it reads one. zarr takes a missing chunk
for one that was never written, and fills it. Therefore presence and size of every file are checked before reading, and a
file of the manifest that cannot be found later is an error.

Reading takes no lock. A published folder never changes: it is taken away whole, in one step. So a reader looks, after every file
that it read, whether the recording's ``manifest.json`` is still the same file, and drops what it read if it is not.
"""
