"""What a person can do: one function per verb, from a request document to a result.

Command line, programs, sweeps and the demo call these. A request is a document of `neuromas.schema`; a result is a value that
says what came of it.
"""
