diffsteer sample runs/color --steer color=#1ae680 --seeds 0-5 --sweep strength=0,0.25,1,4 --out pictures/colour.png
