diffsteer sample runs/first --solver mix --seeds 0-5 --sweep steps=1,2,5,10,20,40 --out pictures/steps.png
diffsteer sample runs/first --solver mix --steps 40 --count 32 --columns 8 --out pictures/first.png
