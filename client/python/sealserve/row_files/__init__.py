"""Files of rows: `reader` reads them for every command and for the service's calibration."""
