"""Write every JSON Schema: ``python -m neuromas.schema schemas/``."""

from neuromas.schema.export import main

main()
