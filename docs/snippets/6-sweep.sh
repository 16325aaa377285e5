diffsteer sample runs/labels --labels 0,1,4,7 --seeds 0 --steer my_losses.py:leaning --sweep strength=0,0.3,1,3 --out pictures/leaning.png
