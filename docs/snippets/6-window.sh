diffsteer sample runs/labels --labels 8,9 --seeds 0,1 --steer my_losses.py:hollow,window=0-0.6 --sweep strength=0,1,4 --out pictures/hollow.png
