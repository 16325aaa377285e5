diffsteer sample runs/labels --labels all --seeds 0,1,2 --columns 3 --out pictures/same-noise.png
