diffsteer sample runs/labels --labels 3,5,8 --seeds 0,1 --sweep guidance-scale=1,2,4,8 --out pictures/guidance.png
