diffsteer sample runs/color --steer "clip=a three,model=clip" --steer color=#33cc4d --seeds 0-15 --columns 8 --out pictures/green-three.png
