diffsteer train digits --channels 32,32 --steps 120 --out runs/labels
diffsteer sample runs/labels --labels all --per-label 8 --columns 8 --out pictures/labels.png
