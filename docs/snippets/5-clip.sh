python tests/steering/tiny_clip.py clip
diffsteer sample runs/color --steer "clip=a red three,model=clip" --seeds 0-15 --columns 8 --out pictures/red-three.png
