diffsteer train digits-color --channels 32,32 --steps 120 --conditioning none --out runs/color
