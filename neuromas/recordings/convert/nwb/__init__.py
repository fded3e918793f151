"""NWB files, HDF5 and zarr: spikes or a time series about the rows of an interval table.

pynwb opens the file and reads lazily. Of a time series, only the samples of the selected trials are read, trial by trial.
Where a file does not say that a unit was recorded, its activity is missing, never zero.
"""
