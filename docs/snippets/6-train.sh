diffsteer train digits --channels 32,32 --steps 120 --out runs/labels
