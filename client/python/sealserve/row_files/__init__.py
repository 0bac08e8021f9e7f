"""Files of rows: `read_rows` reads them for every command and for the service's calibration."""
