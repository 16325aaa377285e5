diffsteer train digits --channels 32,32 --steps 120 --conditioning none --out runs/first
