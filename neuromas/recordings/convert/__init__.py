"""Recordings from foreign formats: one module or package per format. Other packages add formats as plug-ins."""
